"""Pictures: decoded, compared and drawn. Pillow is known here alone in the controller."""
