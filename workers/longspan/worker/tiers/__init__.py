"""KV pages below the page pool: in RAM and on SSD."""
