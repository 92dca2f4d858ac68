"""What is as large as the training data make it."""

from torch import nn


class Fitted(nn.Module):
    """A module whose own buffers and parameters take the shapes of the state dict that is loaded into them."""

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for name, own in (*self._buffers.items(), *self._parameters.items()):
            if (saved := state_dict.get(f"{prefix}{name}")) is not None:
                own.data = own.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
