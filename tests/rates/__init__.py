"""How fast a tenant may ask and send."""
