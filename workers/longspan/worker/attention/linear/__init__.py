"""Linear attention: exp(q k) replaced by a product of features, so that keys add up to a state."""
