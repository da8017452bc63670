"""SaMi-Trop: 1,631 12-lead ECGs of people with Chagas cardiomyopathy, with mortality."""
