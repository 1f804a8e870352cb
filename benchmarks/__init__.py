"""Plug-in folder of siamcal, installed as `siamcal.benchmarks`."""

if __name__ != "siamcal.benchmarks":
    raise ImportError(
        f"This folder is 'siamcal.benchmarks', but was imported as {__name__!r}, which would "
        "load a second copy. Write `import siamcal.benchmarks`."
    )
