"""Who is calling: API keys, signed tokens and certificates, each as a tenant."""
