"""How something is measured: time, scenarios, energy, disturbance by other programs."""
