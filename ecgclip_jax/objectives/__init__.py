"""Training objectives: pure functions from embeddings to a loss; they know no mesh object and no model."""
