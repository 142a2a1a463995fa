"""From logits to text: how tokens are chosen, constrained, spelled out and brought to an end."""
