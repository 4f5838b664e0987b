"""What the detector is: torch modules and the artifact that carries them. No HTTP, no fitting."""
