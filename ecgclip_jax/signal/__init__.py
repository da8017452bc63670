"""What an ECG is: records as read, stored windows, a model's input."""
