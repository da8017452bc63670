"""Pictures of single ECGs."""
