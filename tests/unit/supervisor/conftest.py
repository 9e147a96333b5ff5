"""What is checked in the world of make-believe is shown when it is not so."""

import pytest

pytest.register_assert_rewrite("policy_world")
