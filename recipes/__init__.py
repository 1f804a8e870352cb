"""Plug-in folder of siamcal, installed as `siamcal.recipes`."""

if __name__ != "siamcal.recipes":
    raise ImportError(
        f"This folder is 'siamcal.recipes', but was imported as {__name__!r}, which would "
        "load a second copy. Write `import siamcal.recipes`."
    )
