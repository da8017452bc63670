"""What a report is: cleaning, concepts, prompts, tokens."""
