"""The KV cache's bookkeeping: which page holds what, and who may read it."""
