"""KV pages that workers keep of documents: who has what, and what is to be dropped."""
