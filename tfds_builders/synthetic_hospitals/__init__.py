"""Ten synthetic hospitals: echo, rare diseases, risk factors and follow-up beside every ECG, all with known truth."""
