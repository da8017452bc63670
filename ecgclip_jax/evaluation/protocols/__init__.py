"""Zero-shot, linear probe and retrieval under one interface."""
