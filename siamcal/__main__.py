"""`python -m siamcal`, also for `accelerate launch -m siamcal`."""

from siamcal.cli import main

main()
