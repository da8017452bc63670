"""What every cohort's builder shares: record schema, conversion, parallel writer, audit, TFDS class."""
