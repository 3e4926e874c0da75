"""The convolutions of Mnih et al. 2013 (arXiv 1312.5602): a third of the work of Nature's, for machines without a GPU.

python train.py env=ALE/Pong-v5 imports=benchmarks.mnih2013 agent.network.encoder=mnih2013
"""

from agent import register_encoder
from agent.networks.encoders import TrunkEncoder, image
from agent.networks.trunks import Convolutions

LAYERS = (16, 8, 4), (32, 4, 2)  # channels, side, stride

register_encoder("mnih2013", lambda parts: TrunkEncoder(Convolutions(image(parts), LAYERS, parts.generator), parts))
