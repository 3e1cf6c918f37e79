/* units.c - see units.h. */
#include "worker/units.h"

#include "base/mem.h"

enum status units_of_rows(const struct row_source *source, const int64_t *rows, int64_t n,
                          struct unit_list *out)
{
    static const char *const what = "the units of a batch";
    const bool chunked = source->first_unit != NULL;
    out->count = out->tokens = 0;
    out->longest = out->shortest = 0;
    TRY(mem_grow(&out->begin, &out->begin_capacity, (size_t)n + 1, sizeof *out->begin, what));
    out->begin[0] = 0;
    for (int64_t i = 0; i < n; i++)
        out->begin[i + 1] = out->begin[i] + (chunked
                                                 ? source->first_unit(source->self, rows[i] + 1) -
                                                       source->first_unit(source->self, rows[i])
                                                 : 1);
    out->count = out->begin[n];
    TRY(mem_grow(&out->unit, &out->unit_capacity, (size_t)out->count, sizeof *out->unit, what));
    TRY(mem_grow(&out->length, &out->length_capacity, (size_t)out->count, sizeof *out->length,
                 what));
    for (int64_t i = 0; i < n; i++) {
        const int64_t first = chunked ? source->first_unit(source->self, rows[i]) : rows[i];
        for (int64_t k = out->begin[i]; k < out->begin[i + 1]; k++) {
            const int32_t length = source->length(source->self, first + k - out->begin[i]);
            out->unit[k] = first + k - out->begin[i];
            out->length[k] = length;
            out->tokens += length;
            out->longest = length > out->longest ? length : out->longest;
            out->shortest = k == 0 || length < out->shortest ? length : out->shortest;
        }
    }
    return STATUS_OK;
}

void units_release(struct unit_list *units)
{
    mem_free(units->unit);
    mem_free(units->length);
    mem_free(units->begin);
    *units = (struct unit_list){0};
}
