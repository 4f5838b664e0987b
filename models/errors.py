"""The errors that JigSight raises on purpose. Each message says what was wrong and what to do.

JigSightError
├── ImageError            these bytes are not a picture that can be judged
│   ├── UnsupportedImage  not one of the formats or pixel types that are read
│   ├── ImageTooLarge     more pixels than allowed; found before decoding
│   ├── ImageTooSmall     fewer pixels than show a part
│   └── CorruptImage      begins like a picture but cannot be read to its end
├── WeightsError          backbone weights that cannot be had or do not fit
├── ArtifactError         an artifact file that must not be used
│   └── ArtifactTooLarge  it is sound, but the device or the computer has no memory left for it
├── DeviceError           a device that is asked for and not there
├── ScoreError            the detector gave a score that is not a finite number
├── DatasetError          training or test pictures that are missing or unusable  (training)
├── RecipeError           a recipe with an unknown or impossible setting          (training)
└── ServiceError          a request that could not be judged                      (service.errors)
"""


class JigSightError(Exception):
    """Root of every error raised on purpose; its text is meant for the person who can mend it."""


class ImageError(JigSightError):
    """These bytes are not a picture that can be judged."""


class UnsupportedImage(ImageError):
    """Not one of the formats or pixel types that are read."""


class ImageTooLarge(ImageError):
    """More pixels than allowed; found in the header, before anything is decoded."""


class ImageTooSmall(ImageError):
    """Fewer pixels than show a part: there is nothing to judge."""


class CorruptImage(ImageError):
    """Begins like a picture but cannot be read to its end."""


class WeightsError(JigSightError):
    """Backbone weights that cannot be had, or that do not fit the architecture."""


class ArtifactError(JigSightError):
    """An artifact file that must not be used, being damaged, altered or of another format, or that does not fit."""


class ArtifactTooLarge(ArtifactError):
    """A sound artifact that the device, or the computer, has no memory left for."""


class DeviceError(JigSightError):
    """A device that is asked for and not there."""


class ScoreError(JigSightError):
    """The detector gave a score that is not a finite number; there is no verdict."""


class DatasetError(JigSightError):
    """Training or test pictures that are missing or unusable."""


class RecipeError(JigSightError):
    """A recipe with an unknown or impossible setting."""
