"""The reparameterisation trick: draws of noise, and layers that take them as an argument."""
