"""Training objectives: pure losses and the views and towers they need."""
