"""Writes state_dict.bin and state_dict_before_1.6.bin: tensors as PyTorch's torch.save stores them,
now and before release 1.6, views and aliases included."""
import torch

table = torch.arange(6, dtype=torch.float32).reshape(2, 3)
tensors = {
    "table": table,
    "alias": table,
    "transposed": table.t(),
    "second_row": table[1],
    "every_second": table[:, ::2],
    "scalar": torch.tensor(7.0),
    "empty": torch.empty(0, 4),
    "bf16": torch.arange(3, dtype=torch.bfloat16),
    "half": torch.arange(3, dtype=torch.float16),
}
torch.save(tensors, "state_dict.bin")
torch.save(tensors, "state_dict_before_1.6.bin", _use_new_zipfile_serialization=False)
