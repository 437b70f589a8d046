// The Step block: what changes from one run of a plan to the next. The same offsets as StepBlock in the backend.
const uint STEP_ROWS = 0, STEP_OUTPUTS = 1, STEP_PAGES = 2;
const uint STEP_SLOTS = 4, SLOT_INTS = 8;  // per slot: attention's workgroups x y z, splits, combine's x y z
const uint STEP_ARRAYS = 36;
const uint TOKENS = 0, POSITIONS = 1, OUTPUT_ROWS = 2, FIRST_PAGES = 3, SEQUENCES = 4, TILES = 5;  // arrays of max_rows

uint step_at(uint array, uint max_rows, uint row) {
    return STEP_ARRAYS + array * max_rows + row;
}
