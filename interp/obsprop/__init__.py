"""Observable propagation: feature vectors from almost no data (Dunefsky & Cohan)."""
