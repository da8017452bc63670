"""The PhysioNet/CinC Challenge 2017's training set: 8,528 hand-held single-lead ECGs of 9 to 61 s, four classes."""
