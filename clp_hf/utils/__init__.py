"""Files, numbers and connections: what has nothing to do with images."""
