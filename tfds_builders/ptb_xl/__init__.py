"""PTB-XL: 21,799 clinical 12-lead ECGs of 10 s with reports and SCP-ECG statements."""
