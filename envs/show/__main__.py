"""`python -m envs.show`."""

import sys

from envs.show import main

sys.exit(main())
