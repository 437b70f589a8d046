// The blocks of a packed tile, one after the other, with the scales of their groups. Included inside an unnamed
// namespace after codes.inl.

struct GroupDecode {
    Float scale, zero, minimum;
};

// Reads the blocks of one tile in order, from `block` on.
struct TileReader {
    const TileShape& t;
    const uint8_t* panel;
    int in_panel;           // the next block, in its panel
    int halves;             // of that block's group, before it
    int group;              // that group, in the panel
    GroupDecode groups[2];  // of the halves of the block that was read last

    TileReader(const TileShape& t, const uint8_t* tile, int block)
        : t(t),
          panel(panel_at(t, tile, block / t.panel_blocks)),
          in_panel(block % t.panel_blocks),
          halves(2 * in_panel % t.group_halves),
          group(2 * in_panel / t.group_halves) {
        groups[0] = groups[1] = {Simd::set(1), Simd::set(static_cast<float>(t.zero)), Simd::set(0)};
        if (halves != 0 && t.header != HeaderKind::none) load_group(groups);
    }
    QUANT_NOINLINE void load_group(GroupDecode* to) {
        const GroupScale s = load_scale(t, panel, group);
        const Float zero = Simd::set(static_cast<float>(t.zero));
        const bool integer = t.header == HeaderKind::integer;
        *to = {s.scale, integer ? Simd::add(zero, s.offset) : zero, integer ? Simd::set(0) : s.offset};
    }
    QUANT_INLINE const uint8_t* next() {
        if (in_panel == t.panel_blocks) {
            panel += t.panel_bytes;
            in_panel = group = 0;
        }
        const uint8_t* block = panel + t.header_bytes + in_panel++ * t.block_bytes;
        if (t.header == HeaderKind::none) return block;
        if (halves == 0) {
            load_group(&groups[0]);
            if (t.group_halves == 1) ++group, load_group(&groups[1]);
        }
        if (t.group_halves > 1) groups[1] = groups[0];
        halves += 2;
        if (halves >= t.group_halves) halves = 0, ++group;
        return block;
    }
};
