"""CPSC 2018's public training set: 6,877 12-lead ECGs of 6 to 144 s with nine classes."""
