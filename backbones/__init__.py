"""Plug-in folder of siamcal, installed as `siamcal.backbones`."""

if __name__ != "siamcal.backbones":
    raise ImportError(
        f"This folder is 'siamcal.backbones', but was imported as {__name__!r}, which would "
        "load a second copy. Write `import siamcal.backbones`."
    )
