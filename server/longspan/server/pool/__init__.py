"""The local worker processes: started, watched, restarted; and the documents that kill them."""
