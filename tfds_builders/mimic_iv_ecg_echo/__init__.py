"""MIMIC-IV-ECG with MIMIC-IV-ECHO: ECGs and what an echocardiogram near them measured."""
