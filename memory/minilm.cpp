// The default model's pass (memory/minilm.py says which model and how it is rounded) without a runtime between its steps: the words
// of all texts stand one behind another, so nothing is padded and no text is read beside another; weights lie as the processor's
// products of bytes read them (AMX, else AVX-512 VNNI). Where neither is, `memrelay_minilm_open` gives nothing, and onnxruntime does it.
#include "amx.h"

#ifdef MEMRELAY_AMX

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

namespace {

constexpr int64_t width = 384, inner = 1536, heads = 12, head = width / heads, layers = 6, lanes = 16;
constexpr int64_t tile = 1024, rows = 16, deep = 64, beside = 4;  // bytes, rows and columns of a tile; tiles side by side
constexpr float epsilon = 1e-12f;                                // as in minilm.py

typedef float V __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(64)));

#define INLINE __attribute__((always_inline)) inline

INLINE V load(const float *at)
{
    V v;
    std::memcpy(&v, at, sizeof v);
    return v;
}

INLINE void store(float *at, V v) { std::memcpy(at, &v, sizeof v); }

INLINE V all(float value) { return V{} + value; }

INLINE float sum(V v)
{
    float total = 0;
    for (int64_t i = 0; i < lanes; i++) total += v[i];
    return total;
}

INLINE V exponential(V x)  // Cephes: 2^n and a polynomial
{
    const V low = all(-87.0f);
    x = x < low ? low : x;
    const I whole = __builtin_convertvector(x * 1.44269504f + (x < V{} ? all(-0.5f) : all(0.5f)), I);
    const V n = __builtin_convertvector(whole, V), r = x - n * 0.693359375f + n * 2.12194440e-4f;
    V p = all(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) p = p * r + c;
    const I scale = (whole + 127) << 23;
    V power;
    std::memcpy(&power, &scale, sizeof power);
    return (p * r * r + r + 1.0f) * power;
}

struct Free {
    void operator()(void *at) const { std::free(at); }
};
template <typename T> using Block = std::unique_ptr<T[], Free>;

template <typename T> Block<T> block(int64_t count)
{
    const size_t bytes = (sizeof(T) * size_t(count) + 63) / 64 * 64;
    void *at = std::aligned_alloc(64, bytes ? bytes : 64);
    if (!at) throw std::bad_alloc();
    return Block<T>(static_cast<T *>(at));
}

struct Linear {
    int64_t from, to;
    Block<int8_t> weights;  // by 64 outputs, by 64 inputs: four tiles, each of 16 rows of 16 outputs with 4 inputs
    std::vector<float> scale, bias;
    std::vector<int32_t> sums;  // of each output's weights

    Linear(int64_t from, int64_t to, const int8_t *small, const float *scales, const float *biases)  // `small`: (from, to)
        : from(from), to(to), weights(block<int8_t>(from * to)), scale(scales, scales + to), bias(biases, biases + to), sums(to)
    {
        for (int64_t k = 0; k < from; k++)
            for (int64_t n = 0; n < to; n++) {
                const int64_t group = n / (beside * rows), place = n / rows % beside, depth = k / deep;
                const int64_t at = ((group * (from / deep) + depth) * beside + place) * tile;
                weights[at + k % deep / 4 * 64 + n % rows * 4 + k % 4] = small[k * to + n];
                sums[n] += small[k * to + n];
            }
    }
};

struct Norm {
    std::vector<float> weight, bias;
};

struct Layer {
    Linear asked, given, wide, narrow;
    Norm attended, out;
};

struct Model {
    int64_t axes;
    bool tiles;
    const int8_t *words;  // these the caller keeps
    const float *words_scale, *places, *projection;
    Norm norm;
    std::vector<Layer> layers;
};

struct Rounded {  // rows of inputs as bytes: value = (byte - zero) * scale
    const uint8_t *bytes;
    const float *scale;
    const int32_t *zero;
};

INLINE void normalise(float *row, const Norm &norm)
{
    V total{}, squares{};
    for (int64_t k = 0; k < width; k += lanes) total += load(row + k);
    const float mean = sum(total) / width;
    for (int64_t k = 0; k < width; k += lanes) {
        const V off = load(row + k) - mean;
        squares += off * off;
    }
    const float by = 1.0f / std::sqrt(sum(squares) / width + epsilon);
    for (int64_t k = 0; k < width; k += lanes)
        store(row + k, (load(row + k) - mean) * by * load(&norm.weight[k]) + load(&norm.bias[k]));
}

INLINE void unit(float *row, int64_t count)
{
    float squares = 0;
    for (int64_t k = 0; k < count; k++) squares += row[k] * row[k];
    const float by = 1.0f / std::sqrt(squares > 1e-24f ? squares : 1e-24f);
    for (int64_t k = 0; k < count; k++) row[k] *= by;
}

// x with erf as a quotient of polynomials in x², as Eigen and others have it; to 1e-6
__attribute__((target(AVX512))) INLINE V gelu(V x)
{
    V z = x * 0.70710678f;
    z = z < all(-4.0f) ? all(-4.0f) : z;
    z = z > all(4.0f) ? all(4.0f) : z;
    const V square = z * z;
    V above = all(-2.72614225801306e-10f), below = all(-1.45660718464996e-05f);
    for (float c : {2.77068142495902e-08f, -2.10102402082508e-06f, -5.69250639462346e-05f, -7.34990630326855e-04f,
                    -2.95459980854025e-03f, -1.60960333262415e-02f})
        above = above * square + c;
    for (float c : {-2.13374055278905e-04f, -1.68282697438203e-03f, -7.37332916720468e-03f, -1.42647390514189e-02f})
        below = below * square + c;
    V by = V(_mm512_rcp14_ps(__m512(below)));
    by = by * (2.0f - below * by);
    return 0.5f * x * (1.0f + z * above * by);
}

// 16 rows of 16, the rows `stride` apart, turned
__attribute__((target(AVX512))) INLINE void turn(const float *from, int64_t stride, int64_t count, float *to, int64_t apart)
{
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = i < count ? _mm512_loadu_ps(from + i * stride) : _mm512_setzero_ps();
    for (int i = 0; i < 16; i += 2) b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            const __m512d one = _mm512_castps_pd(b[i + j]), two = _mm512_castps_pd(b[i + j + 2]);
            a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(one, two));
            a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(one, two));
        }
    for (int i = 0; i < 4; i++) {
        b[i] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), b[i + 4] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
        b[i + 8] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88), b[i + 12] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        _mm512_storeu_ps(to + i * apart, _mm512_shuffle_f32x4(b[i], b[i + 8], 0x88));
        _mm512_storeu_ps(to + (i + 8) * apart, _mm512_shuffle_f32x4(b[i], b[i + 8], 0xdd));
    }
}

// `many` rows of one head: what they attend to. `turned`: the keys (head, wide); `weights`: space for many rows of `wide`
template <int many>
__attribute__((target(AVX512))) INLINE void attend_some(const float *q, const float *v, const float *turned, int64_t count,
                                                        int64_t wide, float *weights, float *out)
{
    V totals[many], low[many] = {}, high[many] = {};
    float most[many];
    for (int r = 0; r < many; r++) most[r] = -3e38f;
    for (int64_t j = 0; j < wide; j += lanes) {
        V found[many] = {};
        for (int64_t d = 0; d < head; d++) {
            const V key = load(turned + d * wide + j);
            for (int r = 0; r < many; r++) found[r] += q[r * 3 * width + d] * key;
        }
        const __mmask16 inside = count - j >= lanes ? 0xffff : __mmask16((1u << (count - j)) - 1);
        for (int r = 0; r < many; r++) {
            const __m512 here = _mm512_mask_blend_ps(inside, _mm512_set1_ps(-3e38f), __m512(found[r] * 0.17677670f));  // 1 / sqrt(head)
            _mm512_storeu_ps(weights + r * wide + j, here);
            const float best = _mm512_reduce_max_ps(here);
            most[r] = best > most[r] ? best : most[r];
        }
    }
    for (int r = 0; r < many; r++) {
        totals[r] = V{};
        for (int64_t j = 0; j < wide; j += lanes) {
            const V e = exponential(load(weights + r * wide + j) - most[r]);  // beyond the end next to nothing: 1e-38
            store(weights + r * wide + j, e);
            totals[r] += e;
        }
    }
    for (int64_t j = 0; j < count; j++) {
        const V one = load(v + j * 3 * width), two = load(v + j * 3 * width + lanes);
        for (int r = 0; r < many; r++) low[r] += weights[r * wide + j] * one, high[r] += weights[r * wide + j] * two;
    }
    for (int r = 0; r < many; r++) {
        const float by = 1.0f / _mm512_reduce_add_ps(__m512(totals[r]));
        store(out + r * width, low[r] * by);
        store(out + r * width + lanes, high[r] * by);
    }
}

__attribute__((target(AVX512))) void attend(const float *asked, int64_t count, float *out, float *turned, float *weights)
{
    const int64_t wide = (count + lanes - 1) / lanes * lanes;
    for (int64_t h = 0; h < heads; h++) {
        const float *q = asked + h * head, *k = q + width, *v = k + width;
        for (int64_t j = 0; j < wide; j += lanes)
            for (int64_t d = 0; d < head; d += lanes)
                turn(k + j * 3 * width + d, 3 * width, count - j, turned + d * wide + j, wide);
        int64_t i = 0;
        for (; i + 4 <= count; i += 4) attend_some<4>(q + i * 3 * width, v, turned, count, wide, weights, out + i * width + h * head);
        for (; i < count; i++) attend_some<1>(q + i * 3 * width, v, turned, count, wide, weights, out + i * width + h * head);
    }
}

enum After { nothing, through_gelu };

// sums of products of `many` rows with 16 outputs from `n` on, as floats
template <After after>
__attribute__((target(AVX512))) INLINE void settle(const Linear &by, const Rounded &in, const int32_t *found, int64_t row,
                                                   int64_t many, int64_t n, float *out)
{
    const V scale = load(&by.scale[n]), bias = load(&by.bias[n]);
    I sums;
    std::memcpy(&sums, &by.sums[n], sizeof sums);
    for (int64_t r = 0; r < many; r++) {
        I total;
        std::memcpy(&total, found + r * lanes, sizeof total);
        total -= in.zero[row + r] * sums;
        const V value = __builtin_convertvector(total, V) * (in.scale[row + r] * scale) + bias;
        store(out + (row + r) * by.to + n, after == through_gelu ? gelu(value) : value);
    }
}

__attribute__((target(AMX))) void begin_tiles()
{
    TileShapes shapes;
    for (int t = 0; t < 8; t++) shapes.set(t, 16, 64);
    IN_MEMORY;
    _tile_loadconfig(&shapes);
}

// have what follows `here` fetched
INLINE void ahead(const int8_t *here, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(here + 2 * beside * tile + at);
}

__attribute__((target(AMX))) void end_tiles() { _tile_release(); }

// the bytes of `count` rows, filled up to whole tiles
template <After after>
__attribute__((target(AMX))) void multiply_tiles(const Linear &by, const Rounded &in, int64_t count, float *out)
{
    alignas(64) int32_t found[beside][rows * lanes];
    const int64_t depth = by.from / deep;
    IN_MEMORY;
    for (int64_t group = 0; group < by.to / (beside * rows); group++) {
        const int8_t *weights = by.weights.get() + group * depth * beside * tile;
        int64_t row = 0;
        for (; row + rows < count; row += 2 * rows)  // two tiles of rows with two of weights
            for (int64_t pair = 0; pair < beside; pair += 2) {
                const uint8_t *first = in.bytes + row * by.from, *second = first + rows * by.from;
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
                for (int64_t k = 0; k < depth; k++) {
                    const int8_t *here = weights + (k * beside + pair) * tile;
                    if (row == 0) ahead(here, 2 * tile);
                    _tile_loadd(4, first + k * deep, by.from);
                    _tile_loadd(5, second + k * deep, by.from);
                    _tile_loadd(6, here, 64);
                    _tile_loadd(7, here + tile, 64);
                    _tile_dpbusd(0, 4, 6);
                    _tile_dpbusd(1, 4, 7);
                    _tile_dpbusd(2, 5, 6);
                    _tile_dpbusd(3, 5, 7);
                }
                _tile_stored(0, found[0], 64);
                _tile_stored(1, found[1], 64);
                _tile_stored(2, found[2], 64);
                _tile_stored(3, found[3], 64);
                const int64_t more = count - row - rows < rows ? count - row - rows : rows;
                for (int64_t b = 0; b < 2; b++) {
                    const int64_t n = (group * beside + pair + b) * rows;
                    settle<after>(by, in, found[b], row, rows, n, out);
                    settle<after>(by, in, found[2 + b], row + rows, more, n, out);
                }
            }
        if (row >= count) continue;
        const uint8_t *bytes = in.bytes + row * by.from;  // one tile of rows with four of weights
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t k = 0; k < depth; k++) {
            const int8_t *here = weights + k * beside * tile;
            if (row == 0) ahead(here, beside * tile);
            _tile_loadd(4, bytes + k * deep, by.from);
            _tile_loadd(5, here, 64);
            _tile_dpbusd(0, 4, 5);
            _tile_loadd(6, here + tile, 64);
            _tile_dpbusd(1, 4, 6);
            _tile_loadd(7, here + 2 * tile, 64);
            _tile_dpbusd(2, 4, 7);
            _tile_loadd(5, here + 3 * tile, 64);
            _tile_dpbusd(3, 4, 5);
        }
        _tile_stored(0, found[0], 64);
        _tile_stored(1, found[1], 64);
        _tile_stored(2, found[2], 64);
        _tile_stored(3, found[3], 64);
        for (int64_t b = 0; b < beside; b++) settle<after>(by, in, found[b], row, count - row, (group * beside + b) * rows, out);
    }
}

// `many` rows with 32 outputs from `n` on
template <After after, int many>
__attribute__((target(AVX512))) void multiply_some(const Linear &by, const Rounded &in, int64_t row, int64_t n, float *out)
{
    alignas(64) int32_t found[2][many * lanes];
    const int64_t depth = by.from / deep;
    const int8_t *weights = by.weights.get() + (n / (beside * rows) * depth * beside + n / rows % beside) * tile;
    const uint8_t *bytes = in.bytes + row * by.from;
    __m512i one[many], two[many];
    for (int r = 0; r < many; r++) one[r] = two[r] = _mm512_setzero_si512();
    for (int64_t k = 0; k < by.from; k += 4) {
        const int8_t *here = weights + k / deep * beside * tile + k % deep * 16;
        const __m512i w = _mm512_loadu_si512(here), x = _mm512_loadu_si512(here + tile);
        for (int r = 0; r < many; r++) {
            int32_t four;
            std::memcpy(&four, bytes + r * by.from + k, sizeof four);
            const __m512i input = _mm512_set1_epi32(four);
            one[r] = _mm512_dpbusd_epi32(one[r], input, w);
            two[r] = _mm512_dpbusd_epi32(two[r], input, x);
        }
    }
    for (int r = 0; r < many; r++) _mm512_store_si512(found[0] + r * lanes, one[r]), _mm512_store_si512(found[1] + r * lanes, two[r]);
    settle<after>(by, in, found[0], row, many, n, out);
    settle<after>(by, in, found[1], row, many, n + rows, out);
}

template <After after>
__attribute__((target(AVX512))) void multiply_vectors(const Linear &by, const Rounded &in, int64_t count, float *out)
{
    for (int64_t n = 0; n < by.to; n += 2 * rows) {
        int64_t row = 0;
        for (; row + 8 <= count; row += 8) multiply_some<after, 8>(by, in, row, n, out);
        for (; row + 4 <= count; row += 4) multiply_some<after, 4>(by, in, row, n, out);
        for (; row < count; row++) multiply_some<after, 1>(by, in, row, n, out);
    }
}

struct Space {  // of one pass; a thread keeps its own
    int64_t held = 0;
    Block<float> hidden, asked, context, wide, scale, turned, weights;
    Block<uint8_t> bytes;
    Block<int32_t> zero;

    void make(int64_t count)
    {
        const int64_t whole = (count + rows - 1) / rows * rows;
        if (whole <= held) return;
        held = 0;
        hidden = block<float>(whole * width);
        asked = block<float>(whole * 3 * width);
        context = block<float>(whole * width);
        wide = block<float>(whole * inner);
        bytes = block<uint8_t>(whole * inner);
        std::memset(bytes.get(), 0, size_t(whole * inner));
        scale = block<float>(whole);
        zero = block<int32_t>(whole);
        turned = block<float>(head * whole);
        weights = block<float>(4 * whole);
        held = whole;
    }
};

__attribute__((target(AVX512))) Rounded rounded(const float *values, int64_t count, int64_t from, Space &space)
{
    for (int64_t r = 0; r < count; r++) {
        const float *row = values + r * from;
        __m512 low = _mm512_setzero_ps(), high = low;  // zero itself stays zero
        for (int64_t k = 0; k < from; k += lanes) {
            const __m512 here = _mm512_loadu_ps(row + k);
            low = _mm512_min_ps(low, here);
            high = _mm512_max_ps(high, here);
        }
        const float least = _mm512_reduce_min_ps(low), most = _mm512_reduce_max_ps(high);
        const float scale = most - least > 0 ? (most - least) / 255.0f : 1.0f;
        const int32_t zero = int32_t(std::nearbyint(-least / scale));
        space.scale[r] = scale;
        space.zero[r] = zero;
        const __m512 by = _mm512_set1_ps(1.0f / scale);
        const __m512i off = _mm512_set1_epi32(zero);
        for (int64_t k = 0; k < from; k += lanes) {
            __m512i byte = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(row + k), by)), off);
            byte = _mm512_max_epi32(byte, _mm512_setzero_si512());
            _mm_storeu_si128(reinterpret_cast<__m128i *>(&space.bytes[r * from + k]), _mm512_cvtusepi32_epi8(byte));
        }
    }
    return {space.bytes.get(), space.scale.get(), space.zero.get()};
}

using Multiply = void (*)(const Linear &, const Rounded &, int64_t, float *);

__attribute__((target(AVX512))) void project(const Model &m, const float *row, float *out)
{
    for (int64_t a = 0; a < m.axes; a += 6 * lanes) {
        V found[6] = {};
        const int64_t many = m.axes - a < 6 * lanes ? (m.axes - a) / lanes : 6;
        for (int64_t k = 0; k < width; k++)
            for (int64_t i = 0; i < 6; i++)
                if (i < many) found[i] += row[k] * load(m.projection + k * m.axes + a + i * lanes);
        for (int64_t i = 0; i < many; i++) store(out + a + i * lanes, found[i]);
    }
    unit(out, m.axes);
}

__attribute__((target(AVX512))) void pass(const Model &m, Multiply multiply, Multiply multiply_gelu, const int32_t *ids, const int64_t *lengths,
                                          int64_t texts, int64_t count, float *embedding, float *pieces, Space &s)
{
    int64_t at = 0;
    for (int64_t t = 0; t < texts; t++)
        for (int64_t i = 0; i < lengths[t]; i++, at++) {
            const int8_t *word = m.words + int64_t(ids[at]) * width;
            const float by = m.words_scale[ids[at]], *place = m.places + i * width;
            float *row = s.hidden.get() + at * width;
            for (int64_t k = 0; k < width; k++) row[k] = word[k] * by + place[k];
            normalise(row, m.norm);
        }
    float *hidden = s.hidden.get(), *asked = s.asked.get(), *context = s.context.get(), *wide = s.wide.get();
    auto onto = [&](const Norm &norm) __attribute__((always_inline)) {
        for (int64_t r = 0; r < count; r++) {
            float *row = hidden + r * width;
            for (int64_t k = 0; k < width; k += lanes) store(row + k, load(row + k) + load(context + r * width + k));
            normalise(row, norm);
        }
    };
    for (const Layer &layer : m.layers) {
        multiply(layer.asked, rounded(hidden, count, width, s), count, asked);
        for (int64_t t = 0, from = 0; t < texts; from += lengths[t++])
            attend(asked + from * 3 * width, lengths[t], context + from * width, s.turned.get(), s.weights.get());
        const Rounded attended = rounded(context, count, width, s);
        multiply(layer.given, attended, count, context);
        onto(layer.attended);
        multiply_gelu(layer.wide, rounded(hidden, count, width, s), count, wide);
        multiply(layer.narrow, rounded(wide, count, inner, s), count, context);
        onto(layer.out);
    }
    for (int64_t t = 0, from = 0; t < texts; from += lengths[t++]) {
        float *out = embedding + t * width;
        std::memset(out, 0, width * sizeof(float));
        for (int64_t i = 0; i < lengths[t]; i++)
            for (int64_t k = 0; k < width; k++) out[k] += hidden[(from + i) * width + k];
        unit(out, width);
    }
    for (int64_t r = 0; pieces && r < count; r++) project(m, hidden + r * width, pieces + r * m.axes);
}

}  // namespace

// `given`: the table of words as int8, its scales, places, the projection (384, axes) as floats; the norm behind them (weight, bias);
// of each layer four products (weights as int8, inputs by outputs; scales; biases) and two norms, in the order of the pass.
// `axes` is a multiple of 16. What is not copied (the first four) the caller keeps. Without `tiles` AMX is not used.
extern "C" void *memrelay_minilm_open(const void *const *given, int64_t axes, int64_t tiles)
{
    if (axes % lanes || !has_avx512()) return nullptr;
    const void *const *next = given;
    auto floats = [&] { return static_cast<const float *>(*next++); };
    auto bytes = [&] { return static_cast<const int8_t *>(*next++); };
    auto norm = [&] {
        const float *weight = floats(), *bias = floats();
        return Norm{{weight, weight + width}, {bias, bias + width}};
    };
    auto linear = [&](int64_t from, int64_t to) {
        const int8_t *small = bytes();
        const float *scale = floats(), *bias = floats();
        return Linear(from, to, small, scale, bias);
    };
    try {
        std::unique_ptr<Model> model(new Model{axes, tiles && has_amx(), nullptr, nullptr, nullptr, nullptr, {}, {}});
        model->words = bytes();
        model->words_scale = floats();
        model->places = floats();
        model->projection = floats();
        model->norm = norm();
        for (int64_t l = 0; l < layers; l++) {
            Linear asked = linear(width, 3 * width), given_on = linear(width, width);
            Norm attended = norm();
            Linear wide = linear(width, inner), narrow = linear(inner, width);
            Norm out = norm();
            model->layers.push_back(Layer{std::move(asked), std::move(given_on), std::move(wide), std::move(narrow),
                                          std::move(attended), std::move(out)});
        }
        return model.release();
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

extern "C" void memrelay_minilm_close(void *model) { delete static_cast<Model *>(model); }

// Whether AMX is used.
extern "C" int64_t memrelay_minilm_tiles(const void *model) { return static_cast<const Model *>(model)->tiles; }

// `ids` of all `texts` one behind another, `lengths` of each (at least 1) → their embeddings (texts, 384) and, unless that is null, their
// pieces (words, axes), all of unit length. 0: done, else there was no memory. Several threads may call it at a time.
extern "C" int64_t memrelay_minilm_run(const void *of, const int32_t *ids, const int64_t *lengths, int64_t texts,
                                       float *embedding, float *pieces)
{
    static thread_local Space space;
    const Model &model = *static_cast<const Model *>(of);
    int64_t count = 0;
    for (int64_t t = 0; t < texts; t++) count += lengths[t];
    try {
        space.make(count);
    } catch (const std::bad_alloc &) {
        return 1;
    }
    if (model.tiles) {
        begin_tiles();
        pass(model, multiply_tiles<nothing>, multiply_tiles<through_gelu>, ids, lengths, texts, count, embedding, pieces, space);
        end_tiles();
    } else {
        pass(model, multiply_vectors<nothing>, multiply_vectors<through_gelu>, ids, lengths, texts, count, embedding, pieces, space);
    }
    return 0;
}

#else

extern "C" void *memrelay_minilm_open(const void *const *, int64_t, int64_t) { return nullptr; }
extern "C" void memrelay_minilm_close(void *) {}
extern "C" int64_t memrelay_minilm_tiles(const void *) { return 0; }
extern "C" int64_t memrelay_minilm_run(const void *, const int32_t *, const int64_t *, int64_t, float *, float *) { return 1; }

#endif
