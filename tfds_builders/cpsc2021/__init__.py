"""CPSC 2021: two-lead ambulatory recordings with beats and rhythm changes, for paroxysmal atrial fibrillation."""
