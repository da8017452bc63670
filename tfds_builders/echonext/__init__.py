"""EchoNext: 100,000 ECGs with what an echocardiogram found."""
