"""What an experiment is: frozen pydantic models, no arrays, no jax."""
