"""The one exception that is the user's to fix."""


class UserError(Exception):
    """A mistake or a condition the user can mend: one line that says what is wrong and the fix.

    The command line prints it on standard error and exits with code 2; the app shows it in place.
    """
