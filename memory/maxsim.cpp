// MaxSim in one go (Khattab and Zaharia, ColBERT, 2020; memory/late.py has it in numpy): no copy of what is stored, none of it as floats but a few rows at a time. And products
// of vectors with one.
#include "amx.h"
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace {

constexpr int64_t beside = 16;   // pieces asked that stand side by side
constexpr int64_t widest = 512;  // components of a piece

// V: so many floats as one register holds. `rows` stored pieces are compared at a time, so that no sum waits for itself.
template <typename V, int rows>
__attribute__((always_inline)) inline void compare(const int8_t *const *texts, const int64_t *lengths, int64_t count,
                                                   const float *asked, int64_t groups, int64_t width, float *best)
{
    constexpr int64_t lanes = sizeof(V) / sizeof(float), parts = beside / lanes;
    alignas(64) float floats[rows][widest];
    for (int64_t text = 0; text < count; text++) {
        float *out = best + text * groups * beside;
        for (int64_t i = 0; i < groups * beside; i++) out[i] = -3e38f;
        for (int64_t start = 0; start < lengths[text]; start += rows) {
            for (int64_t r = 0; r < rows; r++) {
                // beyond the end its first piece once more: that changes no maximum
                const int8_t *row = texts[text] + (start + r < lengths[text] ? start + r : start) * width;
                for (int64_t k = 0; k < width; k++) floats[r][k] = row[k];
            }
            for (int64_t part = 0; part < groups * parts; part++) {
                const float *column = asked + (part / parts) * width * beside + (part % parts) * lanes;
                V sums[rows] = {};
                for (int64_t k = 0; k < width; k++) {
                    V q;
                    std::memcpy(&q, column + k * beside, sizeof q);
                    for (int r = 0; r < rows; r++) sums[r] += floats[r][k] * q;
                }
                V most;
                std::memcpy(&most, out + part * lanes, sizeof most);
                for (int r = 0; r < rows; r++) most = sums[r] > most ? sums[r] : most;
                std::memcpy(out + part * lanes, &most, sizeof most);
            }
        }
    }
}

// the products of those of `count` rows that are wanted with the vector; the others stay as they are
template <typename V>
__attribute__((always_inline)) inline void multiply(const float *rows, const uint8_t *wanted, int64_t count, int64_t width,
                                                    const float *vector, double *out)
{
    constexpr int64_t lanes = sizeof(V) / sizeof(float), beside_each = 4 * lanes;
    for (int64_t i = 0; i < count; i++) {
        if (!wanted[i]) continue;
        const float *row = rows + i * width;
        V sums[4] = {};
        int64_t k = 0;
        for (; k + beside_each <= width; k += beside_each)
            for (int64_t r = 0; r < 4; r++) {
                V a, b;
                std::memcpy(&a, row + k + r * lanes, sizeof a);
                std::memcpy(&b, vector + k + r * lanes, sizeof b);
                sums[r] += a * b;
            }
        const V sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        float total = 0;
        for (int64_t lane = 0; lane < lanes; lane++) total += sum[lane];
        for (; k < width; k++) total += row[k] * vector[k];
        out[i] = total;
    }
}

#ifdef MEMRELAY_AMX
constexpr int64_t narrow = 96;  // the width of the default embedder's pieces: one and a half tiles

// By products of bytes: a piece asked as 256 * high + low, so that nothing is lost that counts (to 1 / 32,000 of its largest
// component). The pieces asked stay in the tiles 4 to 7 while all texts pass by.
__attribute__((target(AMX))) void with_tiles(const int8_t *const *texts, const int64_t *lengths, int64_t count,
                                             const float *asked, int64_t groups, float *best)
{
    TileShapes shapes;
    for (int t : {0, 1, 2, 4, 6}) shapes.set(t, 16, 64);  // sums of high and low; of a text 64 columns …
    shapes.set(3, 16, 32);                                // … and 32
    shapes.set(5, 8, 64);
    shapes.set(7, 8, 64);
    IN_MEMORY;
    _tile_loadconfig(&shapes);
    alignas(64) int8_t high[narrow * beside], low[narrow * beside], some[16 * narrow];
    alignas(64) int32_t highs[16 * beside], lows[16 * beside];
    for (int64_t g = 0; g < groups; g++) {
        const float *columns = asked + g * narrow * beside;
        alignas(64) float scale[beside];
        for (int64_t j = 0; j < beside; j++) {
            float most = 1e-30f;
            for (int64_t k = 0; k < narrow; k++) most = std::fmax(most, std::fabs(columns[k * beside + j]));
            scale[j] = most / 32000.0f;
            for (int64_t k = 0; k < narrow; k++) {
                const int32_t whole = int32_t(std::nearbyint(columns[k * beside + j] / scale[j]));
                const int32_t above = (whole + 128) >> 8;  // so that what is below fits a signed byte
                const int64_t at = k / 4 * 64 + j * 4 + k % 4;
                high[at] = int8_t(above), low[at] = int8_t(whole - above * 256);
            }
        }
        IN_MEMORY;
        _tile_loadd(4, high, 64);
        _tile_loadd(5, high + 16 * 64, 64);
        _tile_loadd(6, low, 64);
        _tile_loadd(7, low + 16 * 64, 64);
        const __m512 by = _mm512_load_ps(scale);
        for (int64_t text = 0; text < count; text++) {
            __m512i most = _mm512_set1_epi32(INT32_MIN);
            for (int64_t start = 0; start < lengths[text]; start += 16) {
                const int64_t here = lengths[text] - start < 16 ? lengths[text] - start : 16;
                std::memcpy(some, texts[text] + start * narrow, size_t(here * narrow));
                IN_MEMORY;
                _tile_zero(0);
                _tile_zero(1);
                _tile_loadd(2, some, narrow);
                _tile_loadd(3, some + 64, narrow);
                _tile_dpbssd(0, 2, 4);
                _tile_dpbssd(1, 2, 6);
                _tile_dpbssd(0, 3, 5);
                _tile_dpbssd(1, 3, 7);
                _tile_stored(0, highs, 64);
                _tile_stored(1, lows, 64);
                for (int64_t r = 0; r < here; r++) {
                    const __m512i above = _mm512_slli_epi32(_mm512_load_si512(highs + r * beside), 8);
                    most = _mm512_max_epi32(most, _mm512_add_epi32(above, _mm512_load_si512(lows + r * beside)));
                }
            }
            _mm512_storeu_ps(best + (text * groups + g) * beside, _mm512_mul_ps(_mm512_cvtepi32_ps(most), by));
        }
    }
    _tile_release();
}
#endif

typedef float four __attribute__((vector_size(16)));

#if defined(__x86_64__)
typedef float eight __attribute__((vector_size(32)));
typedef float sixteen __attribute__((vector_size(64)));

__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma"))) void with_512_bits(
    const int8_t *const *texts, const int64_t *lengths, int64_t count, const float *asked, int64_t groups, int64_t width,
    float *best)
{
    compare<sixteen, 8>(texts, lengths, count, asked, groups, width, best);
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma"))) void dots_with_512_bits(
    const float *rows, const uint8_t *wanted, int64_t count, int64_t width, const float *vector, double *out)
{
    multiply<sixteen>(rows, wanted, count, width, vector, out);
}

__attribute__((target("avx2,fma"))) void with_256_bits(
    const int8_t *const *texts, const int64_t *lengths, int64_t count, const float *asked, int64_t groups, int64_t width,
    float *best)
{
    compare<eight, 8>(texts, lengths, count, asked, groups, width, best);
}

__attribute__((target("avx2,fma"))) void dots_with_256_bits(
    const float *rows, const uint8_t *wanted, int64_t count, int64_t width, const float *vector, double *out)
{
    multiply<eight>(rows, wanted, count, width, vector, out);
}

int bits()  // that a register of this processor holds
{
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) return 512;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 256 : 128;
}
#endif

}  // namespace

// texts[i]: lengths[i] rows of `width` int8; asked: `groups` times (width, 16); best: (count, groups * 16)
extern "C" void memrelay_maxsim(const int8_t *const *texts, const int64_t *lengths, int64_t count, const float *asked,
                                int64_t groups, int64_t width, float *best)
{
#ifdef MEMRELAY_AMX
    if (width == narrow && has_amx()) return with_tiles(texts, lengths, count, asked, groups, best);
#endif
#if defined(__x86_64__)
    if (bits() == 512) return with_512_bits(texts, lengths, count, asked, groups, width, best);
    if (bits() == 256) return with_256_bits(texts, lengths, count, asked, groups, width, best);
#endif
    compare<four, 4>(texts, lengths, count, asked, groups, width, best);
}

// out[i]: the product of row i (of `width` floats) with the vector, where it is wanted
extern "C" void memrelay_dots(const float *rows, const uint8_t *wanted, int64_t count, int64_t width, const float *vector,
                              double *out)
{
#if defined(__x86_64__)
    if (bits() == 512) return dots_with_512_bits(rows, wanted, count, width, vector, out);
    if (bits() == 256) return dots_with_256_bits(rows, wanted, count, width, vector, out);
#endif
    multiply<four>(rows, wanted, count, width, vector, out);
}
