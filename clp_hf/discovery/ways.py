"""How groups can be found, by name; read by help, which waits for no heavy import."""

WAYS = ("discover", "background", "errors")
OTHER = {"background": "errors", "errors": "background"}  # to look in where one way has found nothing
