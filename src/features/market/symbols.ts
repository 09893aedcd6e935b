// The assets that can be asked for, and what each source calls them. Only what is known for certain: where it is not, the
// id is null and that source is not asked. Symbols whose asset was renamed or replaced lately are left out.

/** Currencies that prices are given in. */
export const currencies = ['USD', 'EUR', 'GBP', 'JPY', 'CHF', 'CAD', 'AUD'] as const;
export type Currency = (typeof currencies)[number];

/** What each source calls an asset; null where it does not list it or we are not certain. */
export interface AssetIds {
  readonly coingecko: string | null;
  readonly coinpaprika: string | null;
  /** Its own numeric id: symbols are ambiguous there. */
  readonly coinmarketcap: number | null;
  readonly cryptocompare: string | null;
  /** The base of a pair: Bitcoin is XBT, Dogecoin XDG. */
  readonly kraken: string | null;
  /** The base of a product. */
  readonly coinbase: string | null;
}

export interface Asset {
  readonly symbol: string;
  readonly name: string;
  readonly ids: AssetIds;
}

type Row = readonly [
  symbol: string,
  name: string,
  coingecko: string,
  coinpaprika: string | null,
  coinmarketcap: number,
  cryptocompare: string | null,
  kraken: string | null,
  coinbase: string | null,
];

const rows: readonly Row[] = [
  ['1INCH', '1inch', '1inch', '1inch-1inch', 8104, null, '1INCH', '1INCH'],
  ['AAVE', 'Aave', 'aave', 'aave-new', 7278, 'AAVE', 'AAVE', 'AAVE'],
  ['ADA', 'Cardano', 'cardano', 'ada-cardano', 2010, 'ADA', 'ADA', 'ADA'],
  ['ALGO', 'Algorand', 'algorand', 'algo-algorand', 4030, 'ALGO', 'ALGO', 'ALGO'],
  ['APE', 'ApeCoin', 'apecoin', 'ape-apecoin', 18876, null, 'APE', 'APE'],
  ['APT', 'Aptos', 'aptos', 'apt-aptos', 21794, null, 'APT', 'APT'],
  ['ARB', 'Arbitrum', 'arbitrum', 'arb-arbitrum', 11841, 'ARB', 'ARB', 'ARB'],
  ['ATOM', 'Cosmos Hub', 'cosmos', 'atom-cosmos', 3794, 'ATOM', 'ATOM', 'ATOM'],
  ['AVAX', 'Avalanche', 'avalanche-2', 'avax-avalanche', 5805, 'AVAX', 'AVAX', 'AVAX'],
  ['AXS', 'Axie Infinity', 'axie-infinity', 'axs-axie-infinity', 6783, 'AXS', 'AXS', 'AXS'],
  ['BAT', 'Basic Attention Token', 'basic-attention-token', 'bat-basic-attention-token', 1697, 'BAT', 'BAT', 'BAT'],
  ['BCH', 'Bitcoin Cash', 'bitcoin-cash', 'bch-bitcoin-cash', 1831, 'BCH', 'BCH', 'BCH'],
  ['BNB', 'BNB', 'binancecoin', 'bnb-binance-coin', 1839, 'BNB', null, null],
  ['BTC', 'Bitcoin', 'bitcoin', 'btc-bitcoin', 1, 'BTC', 'XBT', 'BTC'],
  ['CHZ', 'Chiliz', 'chiliz', 'chz-chiliz', 4066, 'CHZ', 'CHZ', 'CHZ'],
  ['COMP', 'Compound', 'compound-governance-token', 'comp-compoundd', 5692, 'COMP', 'COMP', 'COMP'],
  ['CRV', 'Curve DAO', 'curve-dao-token', 'crv-curve-dao-token', 6538, 'CRV', 'CRV', 'CRV'],
  ['DAI', 'Dai', 'dai', 'dai-dai', 4943, 'DAI', 'DAI', 'DAI'],
  ['DASH', 'Dash', 'dash', 'dash-dash', 131, 'DASH', 'DASH', 'DASH'],
  ['DOGE', 'Dogecoin', 'dogecoin', 'doge-dogecoin', 74, 'DOGE', 'XDG', 'DOGE'],
  ['DOT', 'Polkadot', 'polkadot', 'dot-polkadot', 6636, 'DOT', 'DOT', 'DOT'],
  ['EGLD', 'MultiversX', 'elrond-erd-2', 'egld-elrond', 6892, 'EGLD', 'EGLD', 'EGLD'],
  ['ENJ', 'Enjin Coin', 'enjincoin', 'enj-enjin-coin', 2130, 'ENJ', 'ENJ', 'ENJ'],
  ['ENS', 'Ethereum Name Service', 'ethereum-name-service', 'ens-ethereum-name-service', 13855, null, 'ENS', 'ENS'],
  ['ETC', 'Ethereum Classic', 'ethereum-classic', 'etc-ethereum-classic', 1321, 'ETC', 'ETC', 'ETC'],
  ['ETH', 'Ethereum', 'ethereum', 'eth-ethereum', 1027, 'ETH', 'ETH', 'ETH'],
  ['FIL', 'Filecoin', 'filecoin', 'fil-filecoin', 2280, 'FIL', 'FIL', 'FIL'],
  ['FLOW', 'Flow', 'flow', 'flow-flow', 4558, 'FLOW', 'FLOW', 'FLOW'],
  ['GRT', 'The Graph', 'the-graph', 'grt-the-graph', 6719, 'GRT', 'GRT', 'GRT'],
  ['HBAR', 'Hedera', 'hedera-hashgraph', 'hbar-hedera-hashgraph', 4642, 'HBAR', null, 'HBAR'],
  ['ICP', 'Internet Computer', 'internet-computer', 'icp-internet-computer', 8916, 'ICP', 'ICP', 'ICP'],
  ['IMX', 'Immutable', 'immutable-x', 'imx-immutable-x', 10603, 'IMX', 'IMX', 'IMX'],
  ['INJ', 'Injective', 'injective-protocol', 'inj-injective-protocol', 7226, 'INJ', 'INJ', 'INJ'],
  ['KAVA', 'Kava', 'kava', 'kava-kava', 4846, 'KAVA', 'KAVA', 'KAVA'],
  ['KSM', 'Kusama', 'kusama', 'ksm-kusama', 5034, 'KSM', 'KSM', null],
  ['LDO', 'Lido DAO', 'lido-dao', 'ldo-lido-dao', 8000, 'LDO', 'LDO', 'LDO'],
  ['LINK', 'Chainlink', 'chainlink', 'link-chainlink', 1975, 'LINK', 'LINK', 'LINK'],
  ['LTC', 'Litecoin', 'litecoin', 'ltc-litecoin', 2, 'LTC', 'LTC', 'LTC'],
  ['MANA', 'Decentraland', 'decentraland', 'mana-decentraland', 1966, 'MANA', 'MANA', 'MANA'],
  ['MINA', 'Mina', 'mina-protocol', 'mina-mina-protocol', 8646, 'MINA', 'MINA', 'MINA'],
  ['NEAR', 'NEAR Protocol', 'near', 'near-near-protocol', 6535, 'NEAR', 'NEAR', 'NEAR'],
  ['NEO', 'Neo', 'neo', 'neo-neo', 1376, 'NEO', null, null],
  ['OP', 'Optimism', 'optimism', 'op-optimism', 11840, null, 'OP', 'OP'],
  ['PAXG', 'PAX Gold', 'pax-gold', 'paxg-pax-gold', 4705, 'PAXG', 'PAXG', null],
  ['PEPE', 'Pepe', 'pepe', 'pepe-pepe', 24478, null, 'PEPE', 'PEPE'],
  ['QNT', 'Quant', 'quant-network', 'qnt-quant', 3155, 'QNT', null, 'QNT'],
  ['QTUM', 'Qtum', 'qtum', 'qtum-qtum', 1684, 'QTUM', 'QTUM', null],
  ['RUNE', 'THORChain', 'thorchain', 'rune-thorchain', 4157, 'RUNE', 'RUNE', null],
  ['SAND', 'The Sandbox', 'the-sandbox', 'sand-the-sandbox', 6210, 'SAND', 'SAND', 'SAND'],
  ['SHIB', 'Shiba Inu', 'shiba-inu', 'shib-shiba-inu', 5994, 'SHIB', 'SHIB', 'SHIB'],
  ['SNX', 'Synthetix', 'havven', 'snx-synthetix-network-token', 2586, 'SNX', 'SNX', 'SNX'],
  ['SOL', 'Solana', 'solana', 'sol-solana', 5426, 'SOL', 'SOL', 'SOL'],
  ['STX', 'Stacks', 'blockstack', 'stx-stacks', 4847, 'STX', 'STX', 'STX'],
  ['SUI', 'Sui', 'sui', 'sui-sui', 20947, 'SUI', 'SUI', 'SUI'],
  ['SUSHI', 'Sushi', 'sushi', null, 6758, 'SUSHI', 'SUSHI', 'SUSHI'],
  ['TRX', 'TRON', 'tron', 'trx-tron', 1958, 'TRX', 'TRX', null],
  ['UNI', 'Uniswap', 'uniswap', 'uni-uniswap', 7083, 'UNI', 'UNI', 'UNI'],
  ['USDC', 'USDC', 'usd-coin', 'usdc-usd-coin', 3408, 'USDC', 'USDC', null],
  ['USDT', 'Tether', 'tether', 'usdt-tether', 825, 'USDT', 'USDT', 'USDT'],
  ['VET', 'VeChain', 'vechain', 'vet-vechain', 3077, 'VET', null, 'VET'],
  ['WBTC', 'Wrapped Bitcoin', 'wrapped-bitcoin', 'wbtc-wrapped-bitcoin', 3717, 'WBTC', 'WBTC', null],
  ['XLM', 'Stellar', 'stellar', 'xlm-stellar', 512, 'XLM', 'XLM', 'XLM'],
  ['XMR', 'Monero', 'monero', 'xmr-monero', 328, 'XMR', 'XMR', null],
  ['XRP', 'XRP', 'ripple', 'xrp-xrp', 52, 'XRP', 'XRP', 'XRP'],
  ['XTZ', 'Tezos', 'tezos', 'xtz-tezos', 2011, 'XTZ', 'XTZ', 'XTZ'],
  ['YFI', 'yearn.finance', 'yearn-finance', 'yfi-yearnfinance', 5864, 'YFI', 'YFI', 'YFI'],
  ['ZEC', 'Zcash', 'zcash', 'zec-zcash', 1437, 'ZEC', 'ZEC', 'ZEC'],
  ['ZIL', 'Zilliqa', 'zilliqa', 'zil-zilliqa', 2469, 'ZIL', null, null],
  ['ZRX', '0x', '0x', 'zrx-0x', 1896, 'ZRX', 'ZRX', 'ZRX'],
];

/** Every asset, in the order of the symbols. */
export const assets: readonly Asset[] = rows.map(
  ([symbol, name, coingecko, coinpaprika, coinmarketcap, cryptocompare, kraken, coinbase]) => ({
    symbol,
    name,
    ids: { coingecko, coinpaprika, coinmarketcap, cryptocompare, kraken, coinbase },
  }),
);
