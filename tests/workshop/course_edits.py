"""Edits of the course's solutions: common mistakes with their hints, and correct variants."""

REFUSAL = """\
        for character in text:
            if character not in self.ids:
                raise ValueError(f"{character!r} is not in the vocabulary")
"""
MASK = "        scores_bhtt = scores_bhtt.masked_fill(later_tt, -math.inf)\n"
HEADS_SPLIT = ".view(b, t, self.n_head, k).transpose(1, 2)"

# A mistake: the file, what is replaced by what, and the start of the first hint.
MISTAKES: dict[str, tuple[str, dict[str, str], str]] = {
    # --- part 1
    "unknown characters dropped": (
        "tokenizer.py",
        {
            REFUSAL: "",
            "[self.ids[character] for character in text]": (
                "[self.ids[character] for character in text if character in self.ids]"
            ),
        },
        "an unknown character is dropped",
    ),
    "unknown characters replaced": (
        "tokenizer.py",
        {REFUSAL: "", "[self.ids[character] for": "[self.ids.get(character, 0) for"},
        "an unknown character is replaced",
    ),
    "an unsorted vocabulary": (
        "tokenizer.py",
        {"sorted(set(text))": "list(dict.fromkeys(text))"},
        "the characters are not sorted",
    ),
    "ids from 1": (
        "tokenizer.py",
        {"enumerate(self.characters)": "enumerate(self.characters, 1)"},
        "the ids begin at 1",
    ),
    "decode off by one, too early": (
        "tokenizer.py",
        {"self.characters[i] for i in ids": "self.characters[i - 1] for i in ids"},
        "decode is off by one",
    ),
    "decode off by one, too late": (
        "tokenizer.py",
        {"self.characters[i] for i in ids": "self.characters[i + 1] for i in ids"},
        "decode indexes beyond the vocabulary: is it off by one?",
    ),
    "a merged pair not used up": (
        "tokenizer.py",
        {"            i += 2\n": "            i += 1\n"},
        "a merged pair is not used up",
    ),
    "the last id lost in merging": (
        "tokenizer.py",
        {"while i < len(ids):": "while i < len(ids) - 1:"},
        "the last id is lost",
    ),
    "any of several equally frequent pairs": (
        "tokenizer.py",
        {"return min(pair": "return max(pair"},
        "of several equally frequent pairs take the smallest",
    ),
    "merges in the wrong order": (
        "tokenizer.py",
        {"in enumerate(merges):": "in reversed(list(enumerate(merges))):"},
        "the merges are applied in the wrong order",
    ),
    "new ids off by one": (
        "tokenizer.py",
        {"256 + number": "257 + number"},
        "encode_bpe is off by one",
    ),
    "characters instead of bytes": (
        "tokenizer.py",
        {"ids = list(text.encode())\n    for": "ids = [ord(c) for c in text]\n    for"},
        "encode_bpe does not begin with bytes",
    ),
    "bytes decoded one by one": (
        "tokenizer.py",
        {'b"".join(tokens[i] for i in ids).decode()': '"".join(tokens[i].decode() for i in ids)'},
        "ids are decoded one by one",
    ),
    "decode_bpe off by one": (
        "tokenizer.py",
        {"tokens[i] for i in ids": "tokens[i - 1] for i in ids"},
        "decode_bpe is off by one",
    ),
    "only the first of the pairs merged": (
        "tokenizer.py",
        {"            i += 2\n": "            return [*merged, *ids[i + 2 :]]\n"},
        "only the first pair is merged",
    ),
    "a list compared with a tuple": (
        "tokenizer.py",
        {"tuple(ids[i : i + 2]) == pair": "ids[i : i + 2] == pair"},
        "the pair is not found",
    ),
    "no return": (
        "tokenizer.py",
        {"    return merged\n": "    ids[:] = merged\n"},
        "one of your functions returns None",
    ),
    "one merge too many": (
        "tokenizer.py",
        {"len(merges) < vocab_size": "len(merges) <= vocab_size"},
        "the number of merges is wrong",
    ),
    "bytes not counted among the ids": (
        "tokenizer.py",
        {"while 256 + len(merges)": "while len(merges)"},
        "the number of merges is wrong",
    ),
    "characters instead of bytes while learning": (
        "tokenizer.py",
        {"ids = list(text.encode())\n    merges": "ids = [ord(c) for c in text]\n    merges"},
        "train_bpe does not begin with bytes",
    ),
    "ids of Unicode": (
        "tokenizer.py",
        {"[self.ids[character] for": "[ord(character) for"},
        "the ids are those of Unicode",
    ),
    "a property without its decorator": (
        "tokenizer.py",
        {"    @property\n": ""},
        "vocab_size is a method",
    ),
    # --- part 2
    "no mask": ("model.py", {MASK: ""}, "the mask is missing"),
    "a mask off by one, too open": (
        "model.py",
        {".triu(1)": ".triu(2)"},
        "the mask is off by one: a position sees one token ahead",
    ),
    "a mask off by one, too closed": (
        "model.py",
        {".triu(1)": ".triu(0)"},
        "the mask is off by one: a position attends to itself too",
    ),
    "a mask upside down": ("model.py", {".triu(1)": ".tril(-1)"}, "the mask is upside down"),
    "a mask after the softmax": (
        "model.py",
        {MASK: "", "scores_bhtt.softmax(dim=-1)": "scores_bhtt.softmax(dim=-1).tril()"},
        "the mask comes after the softmax",
    ),
    "a mask of 0": ("model.py", {"later_tt, -math.inf": "later_tt, 0.0"}, "the mask puts in 0"),
    "missing scale": ("model.py", {" / math.sqrt(k)": ""}, "the scale is missing"),
    "scale by the width": (
        "model.py",
        {"/ math.sqrt(k)": "/ math.sqrt(d)"},
        "the scale is wrong: the scores are divided by sqrt(d)",
    ),
    "scale by k": (
        "model.py",
        {"/ math.sqrt(k)": "/ k"},
        "the scale is wrong: the scores are divided by k",
    ),
    "scale by the number of heads": (
        "model.py",
        {"/ math.sqrt(k)": "/ math.sqrt(self.n_head)"},
        "the scale is wrong: the scores are divided by sqrt(h)",
    ),
    "scale with a misread power": (
        "model.py",
        {"/ math.sqrt(k)": "/ k**1/2"},
        "the scale is wrong: the scores are divided by d, the width of the residual stream (or by",
    ),
    "scale after the softmax": (
        "model.py",
        {" / math.sqrt(k)": "", ".softmax(dim=-1))": ".softmax(dim=-1) / math.sqrt(k))"},
        "the scale comes after the softmax",
    ),
    "softmax twice": (
        "model.py",
        {".softmax(dim=-1)": ".softmax(dim=-1).softmax(dim=-1)"},
        "the softmax is done twice",
    ),
    "no softmax": (
        "model.py",
        {"scores_bhtt.softmax(dim=-1)": "scores_bhtt.masked_fill(later_tt, 0.0)"},
        "the softmax is missing",
    ),
    "a finite mask off by one": (
        "model.py",
        {".triu(1)": ".triu(0)", "-math.inf": "-1e9"},
        "the mask is off by one: a position attends to itself too",
    ),
    "no heads": (
        "model.py",
        {"k = d // self.n_head": "k = d", HEADS_SPLIT: "[:, None]"},
        "there is one head",
    ),
    "scale multiplied": (
        "model.py",
        {"/ math.sqrt(k)": "* math.sqrt(k)"},
        "the scale is upside down",
    ),
    "softmax over the queries": (
        "model.py",
        {"softmax(dim=-1)": "softmax(dim=-2)"},
        "the softmax is on the wrong axis",
    ),
    "softmax over the heads": (
        "model.py",
        {"softmax(dim=-1)": "softmax(dim=1)"},
        "the softmax is on the wrong axis",
    ),
    "heads split by a view alone": (
        "model.py",
        {HEADS_SPLIT: ".view(b, self.n_head, t, k)"},
        "the heads do not fit together",
    ),
    "heads split by reshape alone": (
        "model.py",
        {HEADS_SPLIT: ".reshape(b, self.n_head, t, k)"},
        "the heads are mixed up",
    ),
    "heads split and joined by reshape alone": (
        "model.py",
        {HEADS_SPLIT: ".reshape(b, self.n_head, t, k)", "y_bhtk.transpose(1, 2)": "y_bhtk"},
        "the heads are mixed up",
    ),
    "heads joined without transpose": (
        "model.py",
        {"y_bhtk.transpose(1, 2)": "y_bhtk"},
        "the heads are mixed up",
    ),
    "queries and keys swapped": (
        "model.py",
        {"q_btd, k_btd, v_btd =": "v_btd, k_btd, q_btd ="},
        "queries, keys and values are mixed up",
    ),
    "no GELU": (
        "model.py",
        {'F.gelu(self.up(x_btd), approximate="tanh")': "self.up(x_btd)"},
        "the GELU is missing",
    ),
    "residual missing in attention": (
        "model.py",
        {"x_btd = x_btd + self.attention(": "x_btd = self.attention("},
        "the residual is missing",
    ),
    "residual missing in the MLP": (
        "model.py",
        {"x_btd = x_btd + self.mlp(": "x_btd = self.mlp("},
        "the residual is missing",
    ),
    "one residual around both branches": (
        "model.py",
        {
            "x_btd = x_btd + self.attention(": "y_btd = self.attention(",
            "self.mlp(self.norm_2(x_btd))": "self.mlp(self.norm_2(y_btd))",
        },
        "a residual is missing",
    ),
    "the stream added twice": (
        "model.py",
        {"x_btd + self.mlp(": "x_btd + x_btd + self.mlp("},
        "the stream is added too often",
    ),
    "a block without return": (
        "model.py",
        {
            "        x_btd = x_btd + self.mlp(self.norm_2(x_btd))\n        return x_btd\n": (
                "        x_btd = x_btd + self.mlp(self.norm_2(x_btd))\n"
            )
        },
        "forward of Block returns None",
    ),
    "residuals in place": (
        "model.py",
        {"x_btd = x_btd + self.": "x_btd += self."},
        "the stream is changed in place",
    ),
    "no norm before the MLP": (
        "model.py",
        {"self.mlp(self.norm_2(x_btd))": "self.mlp(x_btd)"},
        "the norm before the MLP is missing",
    ),
    "norm after the branches": (
        "model.py",
        {
            "x_btd + self.attention(self.norm_1(x_btd))": (
                "self.norm_1(x_btd + self.attention(x_btd))"
            ),
            "x_btd + self.mlp(self.norm_2(x_btd))": "self.norm_2(x_btd + self.mlp(x_btd))",
        },
        "the stream itself is normalized",
    ),
    "no final norm": (
        "model.py",
        {"F.linear(self.norm(x_btd)": "F.linear(x_btd"},
        "the final norm is missing",
    ),
    "weights not tied": (
        "model.py",
        {
            "        for name, parameter in self.named_parameters():\n": (
                "        self.head = nn.Linear(config.n_embd, vocab_size, bias=False)\n"
                "        for name, parameter in self.named_parameters():\n"
            ),
            "self.token_embedding.weight)\n": "self.head.weight)\n",
        },
        "the weights are not tied",
    ),
    "a head with a bias": (
        "model.py",
        {
            "        for name, parameter in self.named_parameters():\n": (
                "        self.head = nn.Linear(config.n_embd, vocab_size)\n"
                "        for name, parameter in self.named_parameters():\n"
            ),
            "F.linear(self.norm(x_btd), self.token_embedding.weight)\n": (
                "self.head(self.norm(x_btd))\n"
            ),
        },
        "the weights are not tied",
    ),
    "a head that does not learn": (
        "model.py",
        {"self.token_embedding.weight)\n": "self.token_embedding.weight.detach())\n"},
        "learning does not reach all of token_embedding.weight",
    ),
    "blocks in a plain list": (
        "model.py",
        {"nn.ModuleList(Block(config) for _ in range(config.n_layer))": "[Block(config)]"},
        "the blocks are not registered in PyTorch",
    ),
    "one block several times": (
        "model.py",
        {"Block(config) for _ in range(config.n_layer)": "[Block(config)] * config.n_layer"},
        "one block is used several times",
    ),
    "a loss with the logits": (
        "model.py",
        {"self.token_embedding.weight)\n": "self.token_embedding.weight), None\n"},
        "forward of GPT returns a tuple",
    ),
    "a whole block refused": (
        "model.py",
        {"if t > self.config.block_size": "if t >= self.config.block_size"},
        "12 positions are refused",
    ),
    "all positions, however short the text": (
        "model.py",
        {"position_embedding.weight[:t]": "position_embedding.weight"},
        "the shapes do not fit, with ids (2, 7)",
    ),
    "all tokens start equal": (
        "model.py",
        {
            "                nn.init.normal_(parameter, 0.0, config.init_std)\n": (
                "                nn.init.zeros_(parameter)\n"
            )
        },
        "the init is wrong: all tokens start with the same vector",
    ),
    "the init of PyTorch": (
        "model.py",
        {"            elif parameter.dim() == 2:\n": "            elif parameter.dim() == 3:\n"},
        "the init is wrong: your loss starts at",
    ),
    "no positions": (
        "model.py",
        {" + self.position_embedding.weight[:t]": ""},
        "the positions are missing",
    ),
    "positions from the end": (
        "model.py",
        {"position_embedding.weight[:t]": "position_embedding.weight[-t:]"},
        "positions are counted from the wrong end",
    ),
    "one block alone": (
        "model.py",
        {"in self.blocks:": "in self.blocks[:1]:"},
        "blocks are missing",
    ),
    "probabilities instead of logits": (
        "model.py",
        {"self.token_embedding.weight)\n": "self.token_embedding.weight).softmax(-1)\n"},
        "the softmax is not needed here",
    ),
    "dropout in eval mode": (
        "model.py",
        {
            "weights_bhtt = self.dropout(scores_bhtt.softmax(dim=-1))": (
                "weights_bhtt = F.dropout(scores_bhtt.softmax(dim=-1), 0.1)"
            )
        },
        "dropout is on in eval mode",
    ),
    # --- part 3
    "everything held out, and trained on": (
        "train.py",
        {"return ids_n[:end], ids_n[end:]": "return ids_n, ids_n"},
        "what is held out is trained on too",
    ),
    "the splits swapped": (
        "train.py",
        {"return ids_n[:end], ids_n[end:]": "return ids_n[end:], ids_n[:end]"},
        "the two splits are swapped",
    ),
    "targets not shifted": (
        "train.py",
        {"ids_n[start + 1 : start + block_size + 1]": "ids_n[start : start + block_size]"},
        "the targets are not shifted",
    ),
    "targets not shifted in the loop": (
        "train.py",
        {"loss_of(model(inputs_bt), targets_bt)\n": "loss_of(model(inputs_bt), inputs_bt)\n"},
        "the targets are not shifted in the loop",
    ),
    "targets not shifted in the validation": (
        "train.py",
        {"ids_n[1 : blocks * block_size + 1]": "ids_n[: blocks * block_size]"},
        "the targets of the validation are not shifted",
    ),
    "targets rolled": (
        "train.py",
        {
            "torch.stack([ids_n[start + 1 : start + block_size + 1] for start in starts])": (
                "inputs_bt.roll(-1, dims=1)"
            )
        },
        "the targets are not shifted by one",
    ),
    "the fraction instead of the rest": (
        "train.py",
        {"(1 - val_fraction)": "val_fraction"},
        "a tenth is trained on",
    ),
    "a loss without gradients": (
        "train.py",
        {"targets_bt.flatten())\n": "targets_bt.flatten()).item()\n"},
        "the loss is a plain float",
    ),
    "a warm-up a step too long": (
        "train.py",
        {"if step < warmup_steps": "if step <= warmup_steps"},
        "the warm-up is a step too long",
    ),
    "the rate of another step": (
        "train.py",
        {"learning_rate_at(step, steps": "learning_rate_at(step + 1, steps"},
        "the learning rate is not that of its step",
    ),
    "clipped to a norm of its own": (
        "train.py",
        {"model.parameters(), grad_clip)": "model.parameters(), 1.0)"},
        "gradients are clipped to 1.00, and not to grad_clip",
    ),
    "zero_grad once": (
        "train.py",
        {
            "        optimizer.zero_grad()\n": "",
            "    model.train()\n    for step": (
                "    model.train()\n    optimizer.zero_grad()\n    for step"
            ),
        },
        "zero_grad is missing in the loop",
    ),
    "a last block without its last target": (
        "train.py",
        {"(len(ids_n) - 1) // block_size": "len(ids_n) // block_size"},
        "the blocks do not fit",
    ),
    "one result instead of two": (
        "train.py",
        {
            "return losses, validation_loss(model, val_n, block_size)": (
                "validation_loss(model, val_n, block_size)\n    return losses"
            )
        },
        "train should return two things",
    ),
    "starts beyond the end": (
        "train.py",
        {"len(ids_n) - block_size,": "len(ids_n),"},
        "a block runs over the end of the text",
    ),
    "loss summed": (
        "train.py",
        {"targets_bt.flatten())": 'targets_bt.flatten(), reduction="sum")'},
        "the loss is not averaged",
    ),
    "loss of each target": (
        "train.py",
        {"targets_bt.flatten())": 'targets_bt.flatten(), reduction="none")'},
        "the loss is not averaged",
    ),
    "loss of probabilities": (
        "train.py",
        {"F.cross_entropy(logits_btv.flatten": "F.cross_entropy(logits_btv.softmax(-1).flatten"},
        "the softmax is done twice",
    ),
    "no warm-up": (
        "train.py",
        {"    if step < warmup_steps:\n": "    if step < 0:\n"},
        "the warm-up is missing",
    ),
    "a first step of rate 0": (
        "train.py",
        {"(step + 1) / warmup_steps": "step / warmup_steps"},
        "the warm-up is off by one",
    ),
    "no zero_grad": (
        "train.py",
        {"        optimizer.zero_grad()\n": ""},
        "zero_grad is missing",
    ),
    "zero_grad between backward and step": (
        "train.py",
        {
            "        optimizer.zero_grad()\n": "",
            "        optimizer.step()\n": (
                "        optimizer.zero_grad()\n        optimizer.step()\n"
            ),
        },
        "zero_grad is in the wrong position",
    ),
    "no backward": ("train.py", {"        loss.backward()\n": ""}, "backward is missing"),
    "no update": ("train.py", {"        optimizer.step()\n": ""}, "the update is missing"),
    "a new optimizer each step": (
        "train.py",
        {
            "        inputs_bt, targets_bt = get_batch(train_n": (
                "        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)\n"
                "        inputs_bt, targets_bt = get_batch(train_n"
            )
        },
        "each step has a new optimizer",
    ),
    "learning rate not scheduled": (
        "train.py",
        {'            group["lr"] = rate\n': "            pass\n"},
        "the learning rate is not scheduled",
    ),
    "no clipping": (
        "train.py",
        {"        nn.utils.clip_grad_norm_(model.parameters(), grad_clip)\n": ""},
        "clipping is missing",
    ),
    "clipped element by element": (
        "train.py",
        {"clip_grad_norm_": "clip_grad_value_"},
        "each element of the gradients is clipped by itself",
    ),
    "eval mode forgotten in validation": (
        "train.py",
        {"    model.eval()\n": ""},
        "eval mode is forgotten",
    ),
    "training mode not restored": (
        "train.py",
        {"    model.train()\n    return loss\n": "    return loss\n"},
        "training mode is not restored",
    ),
    "validation data trained on": (
        "train.py",
        {"get_batch(train_n, block_size": "get_batch(ids_n, block_size"},
        "validation data was trained on",
    ),
    "training data validated on": (
        "train.py",
        {"validation_loss(model, val_n": "validation_loss(model, train_n"},
        "training data was validated on",
    ),
    "the same batch each step": (
        "train.py",
        {"batch_size, generator)\n        loss": "batch_size, torch.Generator())\n        loss"},
        "every step has the same batch",
    ),
    # --- part 4
    "softmax on the wrong axis while sampling": (
        "generate.py",
        {"sorted_v.softmax(dim=-1)": "sorted_v[:, None].softmax(dim=-1)[:, 0]"},
        "the softmax is on the wrong axis",
    ),
    "nothing sampled": (
        "generate.py",
        {"if temperature == 0:": "if temperature >= 0:"},
        "nothing is sampled",
    ),
    "the least likely": ("generate.py", {"argmax": "argmin"}, "at temperature 0 the least likely"),
    "temperature 0 divided by": (
        "generate.py",
        {"if temperature == 0:": "if temperature < 0:"},
        "temperature 0 is not a special case",
    ),
    "temperature multiplied": (
        "generate.py",
        {"logits_v / temperature": "logits_v * temperature"},
        "the logits are multiplied by the temperature",
    ),
    "an index of the sorted list for an id": (
        "generate.py",
        {
            "int(order_v[torch.multinomial(probs_v, 1, generator=generator)])": (
                "int(torch.multinomial(probs_v, 1, generator=generator))"
            )
        },
        "an index of the sorted list is taken for an id",
    ),
    "top-k with one too many": (
        "generate.py",
        {"[:top_k]": "[: top_k + 1]"},
        "top-k is off by one",
    ),
    "top-k with one too few, so that k = 1 leaves nothing": (
        "generate.py",
        {"[:top_k]": "[: top_k - 1]"},
        "top-k is off by one",
    ),
    "top-k that fails for k = 1 alone": (
        "generate.py",
        {"[:top_k]": "[: top_k if top_k > 1 else 0]"},
        "top-k is off by one: top_k=1 keeps no id to sample",
    ),
    "top-p that drops the one that reaches p": (
        "generate.py",
        {"- probs_v\n": "\n"},
        "top-p drops the id that reaches p",
    ),
    "top-p forgotten": (
        "generate.py",
        {"    probs_v = probs_v.masked_fill(before_v >= top_p, 0.0)\n": ""},
        "top-p is not used",
    ),
    "positions not cropped": (
        "generate.py",
        {"ids[-block_size:]": "ids"},
        "the text is not cropped to the last block_size",
    ),
    "the text itself cropped": (
        "generate.py",
        {
            "        read_1t = torch.tensor([ids[-block_size:]])\n": (
                "        ids = ids[-block_size:]\n        read_1t = torch.tensor([ids])\n"
            )
        },
        "the beginning of the text is lost",
    ),
    "a short text cropped too": (
        "generate.py",
        {"ids[-block_size:]": "ids[len(ids) - block_size :]"},
        "too little is read, 2 of 4 ids",
    ),
    "the beginning read instead of the end": (
        "generate.py",
        {"ids[-block_size:]": "ids[:block_size]"},
        "the beginning is read, not the end",
    ),
    "the last token alone read": (
        "generate.py",
        {"ids[-block_size:]": "ids[-1:]"},
        "too little is read",
    ),
    "the logits of the first position": (
        "generate.py",
        {"[0, -1]\n": "[0, 0]\n"},
        "the logits of the first position are taken",
    ),
    "the logits of the wrong axis": (
        "generate.py",
        {"[0, -1]\n": "[0, :, -1]\n"},
        "the wrong axis is indexed",
    ),
    "greedy by the wrong axis": (
        "generate.py",
        {
            "[0, -1]\n": "[0]\n",
            "        ids.append(\n": (
                "        logits_v = nn.functional.one_hot(logits_v.argmax(0)[-1], 10) * 50.0\n"
                "        ids.append(\n"
            ),
        },
        "the wrong axis is indexed",
    ),
    "softmax over the positions": (
        "generate.py",
        {"model(read_1t)[0, -1]": "model(read_1t).softmax(1)[0, -1]"},
        "the softmax is on the wrong axis",
    ),
    "a softmax twice": (
        "generate.py",
        {"model(read_1t)[0, -1]": "model(read_1t).softmax(-1)[0, -1]"},
        "the logits do not reach the sampling unchanged",
    ),
    "the prompt left out": (
        "generate.py",
        {"    return ids\n": "    return ids[len(ids) - max_new_tokens :]\n"},
        "the prompt is left out",
    ),
    "one id too few": (
        "generate.py",
        {"range(max_new_tokens)": "range(1, max_new_tokens)"},
        "one id too few is generated",
    ),
    "sampling options not passed on": (
        "generate.py",
        {"temperature=temperature,": "temperature=1.0,"},
        "temperature is not passed on",
    ),
    "eval mode forgotten in generation": (
        "generate.py",
        {"    model.eval()\n": ""},
        "eval mode is forgotten",
    ),
}


# Correct solutions that differ from the page's.
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "attention by PyTorch": (
        "model.py",
        {
            MASK: "",
            "y_bhtk = weights_bhtt @ v_bhtk": (
                "y_bhtk = F.scaled_dot_product_attention(q_bhtk, k_bhtk, v_bhtk, is_causal=True)"
            ),
        },
    ),
    "a matrix that is the head's first": (
        "model.py",
        {
            "        self.token_embedding = nn": (
                "        self.head = nn.Linear(config.n_embd, vocab_size, bias=False)\n"
                "        self.token_embedding = nn"
            ),
            "        self.position_embedding = nn": (
                "        self.token_embedding.weight = self.head.weight\n"
                "        self.position_embedding = nn"
            ),
            "F.linear(self.norm(x_btd), self.token_embedding.weight)": (
                "self.head(self.norm(x_btd))"
            ),
        },
    ),
    "heads by one view": (
        "model.py",
        {HEADS_SPLIT: ".reshape(b, t, self.n_head, k).permute(0, 2, 1, 3)"},
    ),
    "the exact GELU": ("model.py", {', approximate="tanh"': ""}),
    "positions by their numbers": (
        "model.py",
        {"self.position_embedding.weight[:t]": "self.position_embedding(torch.arange(t))"},
    ),
    "zero_grad after the update": (
        "train.py",
        {
            "        optimizer.zero_grad()\n": "",
            "        optimizer.step()\n": "        optimizer.step()\n        model.zero_grad()\n",
        },
    ),
    "the loss by hand": (
        "train.py",
        {
            "F.cross_entropy(logits_btv.flatten(0, 1), targets_bt.flatten())": (
                "-logits_btv.log_softmax(-1).gather(-1, targets_bt[..., None]).mean()"
            )
        },
    ),
    "the training loss computed too": (
        "train.py",
        {
            "    return losses, validation_loss(": (
                "    validation_loss(model, train_n, block_size)\n"
                "    return losses, validation_loss("
            )
        },
    ),
    "top-k by a threshold": (
        "generate.py",
        {
            "sorted_v = sorted_v[:top_k]\n": (
                "least = sorted_v[min(top_k, len(sorted_v)) - 1]\n"
                "        sorted_v = sorted_v.masked_fill(sorted_v < least, -torch.inf)\n"
            )
        },
    ),
    "top-p by searching": (
        "generate.py",
        {
            "    probs_v = probs_v.masked_fill(before_v >= top_p, 0.0)\n": (
                "    enough = int(torch.searchsorted(probs_v.cumsum(-1), top_p)) + 1\n"
                "    probs_v = probs_v[:enough]\n"
            )
        },
    ),
    "a whole tensor that grows": (
        "generate.py",
        {"torch.tensor([ids[-block_size:]])": "torch.tensor(ids)[None][:, -block_size:]"},
    ),
}
