"""Pictures, videos and cameras as a stream of upright RGB frames; broken ones are only flagged.

Kinds are told by content, not by extension. Nothing here holds more than one frame of a video.
"""

from siamcal.faces.media.camera import open_camera
from siamcal.faces.media.frames import Frame, FrameStream
from siamcal.faces.media.opening import open_media, read_frame
from siamcal.faces.media.pictures import read_image

__all__ = ["Frame", "FrameStream", "open_camera", "open_media", "read_frame", "read_image"]
