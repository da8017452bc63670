"""SPH: 25,770 12-lead ECGs of 10 to 60 s of Shandong Provincial Hospital with AHA statement codes."""
