"""The reparameterisation trick: draws, and layers that take them as an argument."""
